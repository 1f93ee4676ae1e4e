"""What a program of your own calls: load, act, predict, observe, train. See docs/api.md."""
