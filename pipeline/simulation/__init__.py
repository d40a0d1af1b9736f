"""`marquee simulate`: how far offline numbers can be trusted, measured where the truth about online value is known."""
