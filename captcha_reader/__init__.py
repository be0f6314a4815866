"""What every lesson needs and none has to explain: drawing, test sets, scores, finished weights."""
