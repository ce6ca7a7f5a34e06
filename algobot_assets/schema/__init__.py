"""Tables, columns, the calendar of candles, and what a window is."""
