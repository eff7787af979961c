{{- define "palegreen.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" }}
{{- end }}

{{- define "palegreen.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else if contains (include "palegreen.name" .) .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "palegreen.name" .) | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "palegreen.selectorLabels" -}}
app.kubernetes.io/name: {{ include "palegreen.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "palegreen.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: palegreen
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{ include "palegreen.selectorLabels" . }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "palegreen.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}
{{- end }}

{{- define "palegreen.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- .Values.serviceAccount.name | default (include "palegreen.fullname" .) }}
{{- else }}
{{- .Values.serviceAccount.name | default "default" }}
{{- end }}
{{- end }}

{{- /* A file of rules or of an AlertmanagerConfig as data; what: for the error. */ -}}
{{- define "palegreen.parsed" -}}
{{- $parsed := fromYaml .text }}
{{- if $parsed.Error }}{{ fail (printf "%s: not YAML: %s" .what $parsed.Error) }}{{ end }}
{{- toYaml $parsed }}
{{- end }}

{{- /* What a probe asks. The kubelet has neither a user nor a certificate: where one is wanted, the port must do. */ -}}
{{- define "palegreen.probe" -}}
{{- $monitor := .root.Values.monitor -}}
{{- if and (eq .scheme $monitor.scheme) (or $monitor.basicAuth $monitor.tlsConfig.cert $monitor.tlsConfig.certFile) -}}
tcpSocket: {port: {{ .port }}}
{{- else -}}
httpGet: {path: {{ .path }}, port: {{ .port }}, scheme: {{ upper .scheme }}}
{{- end }}
{{- end }}

{{- /* How a target is scraped, by http or https; node: whether the pod's node is that of its series. */ -}}
{{- define "palegreen.endpoint" -}}
{{- $monitor := .root.Values.monitor -}}
port: {{ .port }}
path: /metrics
honorLabels: {{ $monitor.honorLabels }}
scheme: {{ .scheme }}
{{- with $monitor.interval }}
interval: {{ . }}
{{- end }}
{{- with $monitor.scrapeTimeout }}
scrapeTimeout: {{ . }}
{{- end }}
{{- if or .node $monitor.relabelings }}
relabelings:
  {{- if .node }}
  - action: replace
    sourceLabels: [__meta_kubernetes_pod_node_name]
    targetLabel: node
  {{- end }}
  {{- with $monitor.relabelings }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- with $monitor.metricRelabelings }}
metricRelabelings:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if eq .scheme $monitor.scheme }}
{{- with $monitor.tlsConfig }}
tlsConfig:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $monitor.basicAuth }}
basicAuth:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end }}

{{- define "palegreen.monitorMetadata" -}}
name: {{ .name }}
namespace: {{ .root.Values.monitor.namespace | default .root.Release.Namespace }}
labels:
  {{- include "palegreen.labels" .root | nindent 2 }}
  {{- with .root.Values.monitor.additionalLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
