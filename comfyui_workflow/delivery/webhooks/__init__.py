"""What goes out to servers of others: webhooks, which are delivered even after a restart, and a guarded way
there, which leads to no private address."""
