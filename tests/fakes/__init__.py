"""Stand-ins for machines that tests cannot have, written from their documentation."""
