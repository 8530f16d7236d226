"""The pages, a module each: a router and the `Page` that lists it."""
