"""Class names that a shard's manifest may state, and that want to be more than text."""

HOSTILE = (
    "<script>document.title='owned'</script>",
    "</script><script>document.title='owned'</script>",
    "<img src=x onerror=\"document.title='owned'\">",
    "'\"><svg onload=document.title='owned'>",
    "{{ 7 * 7 }}",
    "<!--",
    "&lt;b&gt;",
    "http://example.com/x.png",
    "\u202eright to left",
    "a" * 60,
)
"""Names of the ten digits, as a shard's manifest may state them."""
