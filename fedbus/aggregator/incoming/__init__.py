"""From deliveries to complete updates: who may send, what is kept, what is refused unread."""
