{{/* The name of the release's objects, short enough for a suffix. */}}
{{- define "spanloom.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 43 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 43 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 43 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Labels of every object. */}}
{{- define "spanloom.labels" -}}
app.kubernetes.io/name: spanloom
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Values.images.tag | default .Chart.AppVersion | trunc 63 | quote }}
app.kubernetes.io/part-of: spanloom
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | quote }}
{{- end -}}

{{/* Labels of the operator and what belongs to it. */}}
{{- define "spanloom.operatorLabels" -}}
{{ include "spanloom.labels" . }}
app.kubernetes.io/component: operator
{{- end -}}

{{/* What the operator's pods are selected by: never changes. */}}
{{- define "spanloom.selector" -}}
app.kubernetes.io/name: spanloom
app.kubernetes.io/component: operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* The tag of the images. */}}
{{- define "spanloom.tag" -}}
{{- .Values.images.tag | default .Chart.AppVersion -}}
{{- end -}}

{{/* Namespaces where the operator may work: the release's, and those that the values name. */}}
{{- define "spanloom.namespaces" -}}
{{- prepend .Values.operator.pipelineNamespaces .Release.Namespace | uniq | toJson -}}
{{- end -}}

{{/* Ingress and HTTPRoute lead to the release's own pipeline, so there must be one. */}}
{{- define "spanloom.queryService" -}}
{{- if not .Values.pipeline.enabled -}}
{{- fail "query.ingress and query.httpRoute lead to the release's own pipeline: set pipeline.enabled=true" -}}
{{- end -}}
{{- printf "%s-query" .Values.pipeline.name -}}
{{- end -}}
