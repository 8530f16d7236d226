"""The studio: pages that show runs, frontiers, streams and a service, made on the server."""
