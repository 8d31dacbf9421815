"""What draws: charts as SVG, for pages, run folders, reports and Markdown. No torch here."""
