"""Pure decisions: values in, values out. No clock, no I/O, no AWS, no asyncio, no logging."""
