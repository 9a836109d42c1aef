"""The engines behind the REST API. `request` is what the API sees of them."""
