"""The HTTP server under the application: its event loop, its connections and their limits."""
