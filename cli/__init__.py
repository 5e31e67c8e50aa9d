"""The command line.

| | |
|---|---|
| `__main__.py`, `main.py` | the version; the table of commands, exit codes |
| `lazy.py`, `settings.py` | the import of a command on its use; the global flags |
| `verbs/` | one module for each command: its options, its help, its action |
| `server_request.py`, `run_async.py` | the way to a server: connect, send one request, print the reply |
| `server_status.py` | `status`: one question to every registered server |
| `options.py`, `verb_factories.py` | options and whole verbs that differ only in their request |
| `reply_format.py`, `output.py` | results as text and as JSON; standard output and standard error |
| `follower.py` | `tail`: live messages and history as one stream |
| `dashboard/` | `top`: find nodes, scrape their metrics, draw a table |
| `diagnosis/` | `doctor`: gather facts, judge them by a table of checks |
| `command_reference.py`, `guide/` | `skill`: the guide for agents, with the help of every command |
| `supervised.py` | a command that ends with its supervisor, for the nodes of `cluster` |
"""
