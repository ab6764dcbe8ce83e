"""Everything that can be wrong with a campaign, and what it will take, before any time is spent.

Import from the modules: some of them must answer before any heavy library is loaded.
"""
