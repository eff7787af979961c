{{- /*
The evaluator as a sidecar, for the chart of a model that has this one among its dependencies:

  labels:      {{- include "palegreen.evaluator.podLabels" .Subcharts.palegreen | nindent 8 }}
  containers:  {{- include "palegreen.evaluator.container" .Subcharts.palegreen | nindent 8 }}
  volumes:     {{- include "palegreen.evaluator.volumes" .Subcharts.palegreen | nindent 8 }}
*/ -}}
{{- define "palegreen.evaluator.podLabels" -}}
{{- toYaml .Values.evaluator.podMonitor.selector.matchLabels }}
{{- end }}

{{- define "palegreen.evaluator.container" -}}
{{- $evaluator := .Values.evaluator -}}
- name: {{ $evaluator.name }}
  image: {{ include "palegreen.image" . | quote }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  args:
    - evaluate
    - --listen-address=0.0.0.0:{{ int $evaluator.metricsPort }}
    - --upstream={{ $evaluator.upstream }}
    - --proxy-address=0.0.0.0:{{ int $evaluator.proxyPort }}
    {{- with $evaluator.endpoint }}
    - --endpoint={{ . }}
    {{- end }}
    {{- with $evaluator.model }}
    - --model={{ . }}
    {{- end }}
    {{- if $evaluator.store }}
    - --store=/var/lib/palegreen/store/samples.db
    {{- end }}
    {{- if $evaluator.baselines }}
    - --baseline=/var/lib/palegreen/baselines
    {{- end }}
    {{- with $evaluator.extraArgs }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  env:
    - name: PALEGREEN_NAMESPACE
      valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
    - name: PALEGREEN_POD
      valueFrom: {fieldRef: {fieldPath: metadata.name}}
    - name: PALEGREEN_POD_TEMPLATE_HASH
      valueFrom: {fieldRef: {fieldPath: "metadata.labels['pod-template-hash']"}}
    {{- with $evaluator.env }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  ports:
    - name: palegreen-eval
      containerPort: {{ int $evaluator.metricsPort }}
    - name: palegreen-proxy
      containerPort: {{ int $evaluator.proxyPort }}
  livenessProbe:
    {{- include "palegreen.probe" (dict "root" . "port" "palegreen-eval" "scheme" $evaluator.podMonitor.scheme "path" "/healthz") | nindent 4 }}
    periodSeconds: 10
    failureThreshold: 6
  resources:
    {{- toYaml $evaluator.resources | nindent 4 }}
  securityContext:
    {{- toYaml $evaluator.securityContext | nindent 4 }}
  volumeMounts:
    - name: palegreen-tmp
      mountPath: /tmp
    {{- if $evaluator.store }}
    - name: palegreen-store
      mountPath: /var/lib/palegreen/store
    {{- end }}
    {{- if $evaluator.baselines }}
    - name: palegreen-baselines
      mountPath: /var/lib/palegreen/baselines
      readOnly: true
    {{- end }}
{{- end }}

{{- define "palegreen.evaluator.volumes" -}}
{{- $evaluator := .Values.evaluator -}}
- name: palegreen-tmp
  emptyDir: {sizeLimit: 1Gi}
{{- if $evaluator.store }}
- name: palegreen-store
  emptyDir: {sizeLimit: {{ $evaluator.storeSize }}}
{{- end }}
{{- with $evaluator.baselines }}
- name: palegreen-baselines
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
