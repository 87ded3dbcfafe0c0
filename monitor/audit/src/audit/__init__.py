"""Whether money, seats and messages agree: an oracle with its own client and its own SQL, read only.

It shares no code with what it judges, and knows of it what an operator knows: tables, topics, Stripe's API.
"""
