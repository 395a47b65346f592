"""FirecREST v2's routes, so that its clients work unchanged."""
