"""`marquee study`: many models on one data set, compared with paired intervals, and a page to read it on."""
