"""The words on the wire: shapes of requests and answers, FirecREST's and our own. No rule lives here."""
