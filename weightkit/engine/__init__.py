"""Logic on specs: which rule takes which tensor, what is missing, what an actor needs. Arrays only in execution."""
