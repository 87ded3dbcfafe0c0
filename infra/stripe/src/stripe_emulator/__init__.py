"""Stripe's far side for development and tests: PaymentIntents, refunds, events and signed webhooks."""
