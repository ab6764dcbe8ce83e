"""The study: samplers by name, ask and tell, nothing lost and nothing done twice."""
