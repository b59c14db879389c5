"""The HTTP server below the WSGI application: event loop, connections and connection limits."""
