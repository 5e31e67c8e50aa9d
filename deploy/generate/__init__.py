"""The generated files of deploy/, each from its one source.

| generated | from |
|---|---|
| `grafana/*.json` | `generate/dashboards.py` |
| `helm/files/dashboards/*.json` | the same: a chart reads only its own files |
| `helm/files/rules.yaml` | `prometheus/rules.yaml` |
| descriptions in `helm/values.schema.json` | the comments of `helm/values.yaml` |
| the table in `helm/README.md` | `helm/values.yaml` |

`python -m deploy.generate` (`make deploy-files`) writes them; a test compares them with their sources.
"""
