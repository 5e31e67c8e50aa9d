"""What in deploy/ is made from something else, so that nothing is written twice.

| made | from |
|---|---|
| `grafana/*.json` | `generate/dashboards.py` |
| `helm/files/dashboards/*.json` | the same: a chart reads only its own files |
| `helm/files/rules.yaml` | `prometheus/rules.yaml` |
| descriptions in `helm/values.schema.json` | the comments of `helm/values.yaml` |
| the table in `helm/README.md` | `helm/values.yaml` |

`python -m deploy.generate` writes them (`make deploy-files`); a test compares.
"""
