"""The group level: what participants' results say together. It reads what they wrote and never runs them again."""
