"""What is made from a journal: tables, files, summaries. All of it can be made again."""
