"""How requests reach the services: routing, protocols, authorization, throttling."""
