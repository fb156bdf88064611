"""To and from other tools: what each can express, and the files that they read and write."""
