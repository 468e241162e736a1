"""What fastadam refuses, a table for each way in; `case` says what a row is, `worlds` what it is put into."""
