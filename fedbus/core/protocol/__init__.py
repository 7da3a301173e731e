"""What travels: messages, their bytes, frames, layouts, events."""
