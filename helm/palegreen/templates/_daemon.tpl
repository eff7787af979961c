{{- /* Parts that both kinds of `palegreen node` have. settings: .Values.node or .Values.engines. */ -}}
{{- define "palegreen.daemon.metadata" -}}
labels:
  {{- $labels := include "palegreen.labels" .root | fromYaml }}
  {{- toYaml (merge (dict "app.kubernetes.io/component" .component) .settings.podLabels $labels) | nindent 2 }}
annotations:
  checksum/config: {{ toYaml .settings.config | sha256sum }}
  {{- with .settings.podAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{- define "palegreen.daemon.pod" -}}
serviceAccountName: {{ include "palegreen.serviceAccountName" .root }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .settings.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .settings.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .settings.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .settings.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "palegreen.daemon.container" -}}
image: {{ include "palegreen.image" .root | quote }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
ports:
  - name: metrics
    containerPort: {{ int .root.Values.service.port }}
{{- $probe := dict "root" .root "port" "metrics" "scheme" .root.Values.monitor.scheme }}
livenessProbe:
  {{- include "palegreen.probe" (set $probe "path" "/healthz") | nindent 2 }}
  periodSeconds: 10
  failureThreshold: 6
readinessProbe:
  {{- include "palegreen.probe" (set $probe "path" "/readyz") | nindent 2 }}
  periodSeconds: 5
resources:
  {{- toYaml .settings.resources | nindent 2 }}
securityContext:
  {{- toYaml .settings.securityContext | nindent 2 }}
{{- end }}
