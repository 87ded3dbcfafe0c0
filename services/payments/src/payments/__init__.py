"""Orders, Stripe payments and refunds."""
