{{- define "fedbus.labels" -}}
app.kubernetes.io/name: fedbus
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "fedbus.selector" -}}
app.kubernetes.io/name: fedbus
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "fedbus.broker" -}}
{{ .Release.Name }}-broker
{{- end }}

{{- define "fedbus.image" -}}
{{- $own := default (dict) .image -}}
{{ default .root.Values.image.repository $own.repository }}:{{ default .root.Values.image.tag $own.tag }}
{{- end }}

{{/* Who a pod runs as: never root, with no right and no token of the cluster. */}}
{{- define "fedbus.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
terminationGracePeriodSeconds: 60
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "fedbus.container" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- end }}

{{/* No liveness probe: a daemon waits for its broker by itself, and a restart would not bring the broker back. */}}
{{- define "fedbus.probes" -}}
startupProbe:
  exec: {command: [entrypoint, doctor, --quick]}
  periodSeconds: 15
  timeoutSeconds: 15
  failureThreshold: 40
readinessProbe:
  exec: {command: [entrypoint, doctor, --quick]}
  periodSeconds: 60
  timeoutSeconds: 15
{{- end }}

{{- define "fedbus.env" -}}
{{- range $name, $value := . }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- end }}

{{- define "fedbus.metrics" -}}
{{- if .Values.monitoring.enabled }}
- {name: FEDBUS_METRICS_PORT, value: {{ .Values.monitoring.port | quote }}}
- {name: FEDBUS_METRICS_HOST, value: "0.0.0.0"}
{{- end }}
{{- end }}

{{- define "fedbus.metricsPort" -}}
{{- if .Values.monitoring.enabled }}
ports:
  - {name: metrics, containerPort: {{ .Values.monitoring.port }}}
{{- end }}
{{- end }}

{{- define "fedbus.claim" -}}
metadata: {name: state}
spec:
  accessModes: [ReadWriteOnce]
  {{- with .storageClass }}
  storageClassName: {{ . }}
  {{- end }}
  resources: {requests: {storage: {{ .storage }}}}
{{- end }}

{{/* A kit's key must be its owner's alone, and a volume of a Secret is its group's too: the key is copied into memory,
     all else is a link, so that what changes in the Secret changes here. */}}
{{- define "fedbus.linkedKit" -}}
- name: kit
  image: {{ include "fedbus.image" (dict "root" . "image" (dict)) }}
  {{- include "fedbus.container" . | nindent 2 }}
  command:
    - sh
    - -ceu
    - |
      mkdir -p /kit/renewed
      for file in /secret/*; do ln -sf "$file" /kit/; done
      rm -f /kit/key.pem
      umask 077
      cp /secret/key.pem /kit/
  volumeMounts:
    - {name: secret, mountPath: /secret, readOnly: true}
    - {name: kit, mountPath: /kit}
{{- end }}
