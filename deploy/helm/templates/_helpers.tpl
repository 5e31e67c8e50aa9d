{{/* The chart's name, as a label. */}}
{{- define "conclave.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* The prefix of all objects' names; leaves room for the longest suffix. */}}
{{- define "conclave.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 45 | trimSuffix "-" }}
{{- else }}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 45 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 45 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "conclave.chart" -}}
{{- printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* Labels of every object; takes (dict "root" $ "component" NAME). */}}
{{- define "conclave.labels" -}}
helm.sh/chart: {{ include "conclave.chart" .root }}
{{ include "conclave.selectorLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: conclave
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Labels that never change in the life of a release; takes the same. */}}
{{- define "conclave.selectorLabels" -}}
app.kubernetes.io/name: {{ include "conclave.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* Labels of a pod: without versions, so that a new chart alone restarts nothing; takes the same. */}}
{{- define "conclave.podLabels" -}}
{{ include "conclave.selectorLabels" . }}
app.kubernetes.io/part-of: conclave
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "conclave.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "conclave.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* An image's reference; takes (dict "image" VALUES "tag" DEFAULT). */}}
{{- define "conclave.image" -}}
{{- if .image.digest }}
{{- printf "%s@%s" .image.repository .image.digest }}
{{- else }}
{{- printf "%s:%s" .image.repository (default .tag .image.tag) }}
{{- end }}
{{- end }}

{{/* The settings of a node that are no secrets. */}}
{{- define "conclave.config" -}}
CONCLAVE_BIND: 0.0.0.0:4390
CONCLAVE_METRICS_BIND: 0.0.0.0:{{ .Values.metrics.port }}
CONCLAVE_KEY_PREFIX: {{ .Values.redis.keyPrefix | quote }}
CONCLAVE_REGISTRATION: {{ .Values.relay.registration | quote }}
CONCLAVE_PRESENCE: {{ .Values.relay.presence | quote }}
CONCLAVE_WORKERS: {{ .Values.relay.workers | quote }}
CONCLAVE_LOG: {{ .Values.relay.logLevel | quote }}
CONCLAVE_LOG_FORMAT: {{ .Values.relay.logFormat | quote }}
CONCLAVE_DRAIN_DELAY: {{ .Values.drain.delaySeconds | quote }}
CONCLAVE_DRAIN_SECONDS: {{ .Values.drain.seconds | quote }}
{{- with include "conclave.knownUrls" . }}
{{- /* Clients inside of the cluster, such as `helm test`, dial the Service. */}}
CONCLAVE_PUBLIC_URLS: {{ printf "%s,%s" . (include "conclave.serviceUrl" $) | quote }}
{{- end }}
{{- with .Values.relay.otlpEndpoint }}
CONCLAVE_OTLP_ENDPOINT: {{ . | quote }}
{{- end }}
{{- end }}

{{/* The number of nodes. The autoscaler's own number stays, where the cluster can be asked for it: without one,
     Kubernetes takes 1, and sessions of the other nodes end. */}}
{{- define "conclave.replicas" -}}
{{- if or (not .Values.autoscaling.enabled) (eq (int .Values.replicas) 0) }}
{{- .Values.replicas }}
{{- else }}
{{- $deployment := lookup "apps/v1" "Deployment" .Release.Namespace (include "conclave.fullname" .) | default dict }}
{{- dig "spec" "replicas" 0 $deployment | int | max (int .Values.autoscaling.minReplicas) | min (int .Values.autoscaling.maxReplicas) }}
{{- end }}
{{- end }}

{{/* The source of the Redis URL in a node's environment. */}}
{{- define "conclave.redisEnv" -}}
{{- if include "conclave.caVolume" . }}
- name: SSL_CERT_FILE
  value: /etc/conclave/redis-ca/{{ .Values.redis.ca.key }}
{{- end }}
{{- if .Values.valkey.enabled }}
- name: CONCLAVE_REDIS_URL
  value: redis://{{ include "conclave.fullname" . }}-valkey:6379/0
{{- else if .Values.redis.url }}
- name: CONCLAVE_REDIS_URL
  value: {{ .Values.redis.url | quote }}
{{- with .Values.redis.readUrl }}
- name: CONCLAVE_REDIS_READ_URL
  value: {{ . | quote }}
{{- end }}
{{- with .Values.redis.existingSecret }}
- name: CONCLAVE_REDIS_PASSWORD
  valueFrom:
    secretKeyRef:
      name: {{ . }}
      key: {{ $.Values.redis.passwordKey }}
{{- end }}
{{- else }}
- name: CONCLAVE_REDIS_URL
  valueFrom:
    secretKeyRef:
      name: {{ .Values.redis.existingSecret }}
      key: {{ .Values.redis.urlKey }}
{{- with .Values.redis.readUrlKey }}
- name: CONCLAVE_REDIS_READ_URL
  valueFrom:
    secretKeyRef:
      name: {{ $.Values.redis.existingSecret }}
      key: {{ . }}
{{- end }}
{{- end }}
{{- end }}

{{/* The volume with the certificate authority of the Redis; empty without one. */}}
{{- define "conclave.caVolume" -}}
{{- with .Values.redis.ca }}
{{- if .secret -}}
- name: redis-ca
  secret:
    secretName: {{ .secret }}
{{- else if .configMap -}}
- name: redis-ca
  configMap:
    name: {{ .configMap }}
{{- end }}
{{- end }}
{{- end }}

{{/* The ports of the Redis, one a line: those of the values, and those of the URLs that are values. */}}
{{- define "conclave.redisPorts" -}}
{{- $ports := list }}
{{- range .Values.networkPolicy.redisPorts }}
{{- $ports = append $ports (int .) }}
{{- end }}
{{- range compact (list .Values.redis.url .Values.redis.readUrl) }}
{{- $default := ternary 26379 6379 (contains "+sentinel:" .) }}
{{- $hosts := regexReplaceAll "[/?].*$" (regexReplaceAll "^[^:]*://([^@]*@)?" . "") "" }}
{{- range splitList "," $hosts }}
{{- $ports = append $ports (regexFind ":[0-9]+$" . | trimPrefix ":" | default $default | int) }}
{{- end }}
{{- end }}
{{- range uniq $ports }}
{{ . }}
{{- end }}
{{- end }}

{{/* What identifies the volume of the bundled Valkey, which Kubernetes does not let change. */}}
{{- define "conclave.valkeyVolume" -}}
{{- with .Values.valkey.persistence }}
{{- if .enabled }}{{ printf "%s %s" .size .storageClassName | trim }}{{ else }}none{{ end }}
{{- end }}
{{- end }}

{{/* Seconds from SIGTERM to the kill: the longest drain, and the margin. */}}
{{- define "conclave.gracePeriod" -}}
{{- add .Values.drain.delaySeconds .Values.drain.seconds .Values.drain.marginSeconds }}
{{- end }}

{{/* The hosts of the Ingress with their certificates, as YAML. */}}
{{- define "conclave.ingressHosts" -}}
{{- $hosts := list (dict "host" .Values.ingress.host "tlsSecret" .Values.ingress.tlsSecret) }}
{{- range .Values.ingress.extraHosts }}
{{- $hosts = append $hosts (dict "host" .host "tlsSecret" (default "" .tlsSecret)) }}
{{- end }}
{{- toYaml $hosts }}
{{- end }}

{{/* URLs under which clients reach the cluster, separated by commas; empty if only the Service is there. A host with a
     wildcard is none that anybody dials. */}}
{{- define "conclave.publicUrls" -}}
{{- $urls := .Values.relay.publicUrls }}
{{- if not $urls }}
{{- if .Values.ingress.enabled }}
{{- range include "conclave.ingressHosts" . | fromYamlArray }}
{{- if not (hasPrefix "*" .host) }}
{{- $urls = append $urls (printf "%s://%s" (ternary "wss" "ws" (ne .tlsSecret "")) .host) }}
{{- end }}
{{- end }}
{{- end }}
{{- if .Values.httpRoute.enabled }}
{{- range .Values.httpRoute.hostnames }}
{{- if not (hasPrefix "*" .) }}
{{- $urls = append $urls (printf "%s://%s" (ternary "wss" "ws" $.Values.httpRoute.tls) .) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- join "," $urls }}
{{- end }}

{{/* The same if the list is complete. With a wildcard it is not: only relay.publicUrls can list its names. */}}
{{- define "conclave.knownUrls" -}}
{{- $hosts := list }}
{{- if .Values.ingress.enabled }}
{{- range include "conclave.ingressHosts" . | fromYamlArray }}
{{- $hosts = append $hosts .host }}
{{- end }}
{{- end }}
{{- if .Values.httpRoute.enabled }}
{{- $hosts = concat $hosts .Values.httpRoute.hostnames }}
{{- end }}
{{- $wild := false }}
{{- range $hosts }}
{{- if hasPrefix "*" . }}
{{- $wild = true }}
{{- end }}
{{- end }}
{{- if or .Values.relay.publicUrls (not $wild) }}
{{- include "conclave.publicUrls" . }}
{{- end }}
{{- end }}

{{/* The Service's own URL, inside of the cluster. */}}
{{- define "conclave.serviceUrl" -}}
ws://{{ include "conclave.fullname" . }}.{{ .Release.Namespace }}.svc:{{ .Values.service.port }}
{{- end }}

{{/* Rules that values.schema.json cannot express: values that need or exclude each other. */}}
{{- define "conclave.validate" -}}
{{- if and .Values.valkey.enabled .Values.redis.existingSecret }}
{{- fail "redis.existingSecret and valkey.enabled exclude each other: give one of them" }}
{{- end }}
{{- if and .Values.valkey.enabled .Values.redis.url }}
{{- fail "redis.url and valkey.enabled exclude each other: give one of them" }}
{{- end }}
{{- if not (or .Values.valkey.enabled .Values.redis.existingSecret .Values.redis.url) }}
{{- fail "redis.existingSecret is missing: name the Secret that holds the URL of your Redis (kubectl create secret generic conclave-redis --from-literal=url=redis://…), or give redis.url and a Secret with the password alone, or set valkey.enabled=true to try the chart out" }}
{{- end }}
{{- if and .Values.redis.readUrl (not .Values.redis.url) }}
{{- fail "redis.readUrl needs redis.url: a Secret with URLs holds that of the replica, too (redis.readUrlKey)" }}
{{- end }}
{{- if and .Values.redis.readUrl (contains "+cluster:" .Values.redis.url) }}
{{- fail "redis.readUrl and a Cluster in redis.url exclude each other: nodes read from the masters of a Cluster" }}
{{- end }}
{{- if and .Values.redis.readUrlKey .Values.redis.url }}
{{- fail "redis.readUrlKey and redis.url exclude each other: beside redis.url, the replica is redis.readUrl" }}
{{- end }}
{{- if and .Values.redis.ca.secret .Values.redis.ca.configMap }}
{{- fail "redis.ca.secret and redis.ca.configMap exclude each other: give one of them" }}
{{- end }}
{{- if .Values.valkey.enabled }}
{{- $valkey := printf "%s-valkey" (include "conclave.fullname" .) }}
{{- $old := dig "metadata" "annotations" "conclave/volume" "" (lookup "apps/v1" "StatefulSet" .Release.Namespace $valkey | default dict) }}
{{- if and $old (ne $old (include "conclave.valkeyVolume" .)) }}
{{- fail (printf "valkey.persistence cannot be changed in an upgrade (it was: %s). To change it, kubectl --namespace %s delete statefulset %s, and upgrade: an old volume is used again with its data and its size, which `kubectl edit pvc data-%s-0` changes where its class allows that" $old .Release.Namespace $valkey $valkey) }}
{{- end }}
{{- end }}
{{- if and .Values.autoscaling.enabled (lt (int .Values.autoscaling.maxReplicas) (int .Values.autoscaling.minReplicas)) }}
{{- fail (printf "autoscaling.maxReplicas (%d) is less than autoscaling.minReplicas (%d)" (int .Values.autoscaling.maxReplicas) (int .Values.autoscaling.minReplicas)) }}
{{- end }}
{{- if and .Values.autoscaling.enabled (not .Values.autoscaling.targetCPUUtilizationPercentage) (not .Values.autoscaling.targetSessions) (not .Values.autoscaling.metrics) }}
{{- fail "autoscaling.enabled needs autoscaling.targetCPUUtilizationPercentage or autoscaling.targetSessions, or autoscaling.metrics" }}
{{- end }}
{{- if and .Values.autoscaling.enabled .Values.autoscaling.targetCPUUtilizationPercentage (not (dig "requests" "cpu" "" .Values.resources)) }}
{{- fail "autoscaling.targetCPUUtilizationPercentage needs resources.requests.cpu, of which it is a percentage" }}
{{- end }}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) }}
{{- fail "httpRoute.parentRefs is missing: name the Gateway that the HTTPRoute attaches to" }}
{{- end }}
{{- if and .Values.ingress.enabled (eq .Values.ingress.controller "alb") (gt (int .Values.websocketTimeoutSeconds) 4000) }}
{{- fail (printf "websocketTimeoutSeconds (%d) is more than 4000, the longest that an ALB (ingress.controller) leaves a connection idle" (int .Values.websocketTimeoutSeconds)) }}
{{- end }}
{{- with .Values.metrics.serviceMonitor }}
{{- if and .enabled .scrapeTimeout (gt (int (trimSuffix "s" .scrapeTimeout)) (int (trimSuffix "s" .interval))) }}
{{- fail (printf "metrics.serviceMonitor.scrapeTimeout (%s) is more than metrics.serviceMonitor.interval (%s)" .scrapeTimeout .interval) }}
{{- end }}
{{- end }}
{{- if and .Values.metrics.serviceMonitor.enabled (gt (int (trimSuffix "s" .Values.metrics.serviceMonitor.interval)) 30) }}
{{- fail (printf "metrics.serviceMonitor.interval (%s) is more than 30s, too rare for the windows of the alerts" .Values.metrics.serviceMonitor.interval) }}
{{- end }}
{{- end }}
