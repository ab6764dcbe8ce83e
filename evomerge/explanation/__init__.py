"""Why a winner works: what its parts add, how sensitive it is, where its experts conflict."""
