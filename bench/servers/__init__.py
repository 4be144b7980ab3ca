"""What the bridge is measured beside: each a server of its own, run as a process that loads nothing but what it needs."""
