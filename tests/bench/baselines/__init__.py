"""What Embedmill is measured against: honest, well-written versions of what people build first."""
