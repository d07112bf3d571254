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

{{/* Labels of the webhook and what belongs to it. */}}
{{- define "spanloom.webhookLabels" -}}
{{ include "spanloom.labels" . }}
app.kubernetes.io/component: webhook
{{- end -}}

{{/* What the webhook's pods are selected by: never changes. */}}
{{- define "spanloom.webhookSelector" -}}
app.kubernetes.io/name: spanloom
app.kubernetes.io/component: webhook
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* The tag of the images. */}}
{{- define "spanloom.tag" -}}
{{- .Values.images.tag | default .Chart.AppVersion -}}
{{- end -}}

{{/* The operator's image: by digest where there is one. */}}
{{- define "spanloom.operatorImage" -}}
{{- $name := printf "%s/spanloom-operator" .Values.images.registry -}}
{{- if .Values.images.digests.operator -}}
{{- printf "%s@%s" $name .Values.images.digests.operator -}}
{{- else -}}
{{- printf "%s:%s" $name (include "spanloom.tag" .) -}}
{{- end -}}
{{- end -}}

{{/* ClickHouse's image. */}}
{{- define "spanloom.clickhouseImage" -}}
{{- if .Values.clickhouse.image -}}
{{- .Values.clickhouse.image -}}
{{- else if eq .Values.images.registry "ghcr.io/spanloom" -}}
{{- printf "docker.io/clickhouse/clickhouse-server:%s" .Values.clickhouse.tag -}}
{{- else -}}
{{- printf "%s/clickhouse-server:%s" .Values.images.registry .Values.clickhouse.tag -}}
{{- end -}}
{{- end -}}

{{/* The affinity of pods: what the values say, and nodes that the image runs on. */}}
{{- define "spanloom.affinity" -}}
{{- $affinity := deepCopy .affinity -}}
{{- if .architectures -}}
{{- $requirement := dict "key" "kubernetes.io/arch" "operator" "In" "values" .architectures -}}
{{- $node := get $affinity "nodeAffinity" | default dict -}}
{{- $required := get $node "requiredDuringSchedulingIgnoredDuringExecution" | default dict -}}
{{- $terms := list -}}
{{- range get $required "nodeSelectorTerms" | default (list dict) -}}
{{- $terms = append $terms (set . "matchExpressions" (append (get . "matchExpressions" | default list) $requirement)) -}}
{{- end -}}
{{- $_ := set $required "nodeSelectorTerms" $terms -}}
{{- $_ := set $node "requiredDuringSchedulingIgnoredDuringExecution" $required -}}
{{- $_ := set $affinity "nodeAffinity" $node -}}
{{- end -}}
{{- toYaml $affinity -}}
{{- end -}}

{{/* Digests as the operator reads them. */}}
{{- define "spanloom.digests" -}}
{{- $pairs := list -}}
{{- range $program, $digest := .Values.images.digests -}}
{{- if $digest -}}{{- $pairs = append $pairs (printf "%s=%s" $program $digest) -}}{{- end -}}
{{- end -}}
{{- join "," $pairs -}}
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
