"""The built-in components. `plugin` lists them; the bodies are imported when they are built."""
