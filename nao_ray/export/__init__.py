"""Taking a network away: as plain source, as a program of torch or ONNX, with a card that says what it is."""
