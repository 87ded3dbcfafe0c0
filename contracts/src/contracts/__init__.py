"""What crosses a service border: Kafka topics and message types, generated from `contracts/`."""
