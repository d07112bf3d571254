"""Checks rendered manifests against the API's own schemas, strictly, for each version of Kubernetes.

Usage: validate.py FILE...   (each a stream of YAML documents)
"""

import sys

import kubernetes_validate
import yaml

VERSIONS = ["1.29", "1.30", "1.31", "1.32", "1.33", "1.34", "1.35", "1.36", "1.37"]

# Kinds of other projects, and our own: their schemas are not Kubernetes'.
FOREIGN = {"spanloom.dev", "gateway.networking.k8s.io", "grafana.integreatly.org", "monitoring.coreos.com"}


def main(files):
    checked, wrong = 0, 0
    for file in files:
        with open(file, encoding="utf-8") as text:
            documents = [document for document in yaml.safe_load_all(text) if document]
        for document in documents:
            if document["apiVersion"].split("/")[0] in FOREIGN:
                continue
            for version in VERSIONS:
                try:
                    used = kubernetes_validate.validate(document, version, strict=True)
                    # An unknown version is answered from the nearest older one.
                    if used != version:
                        raise RuntimeError(f"there are no schemas for Kubernetes {version}, only for {used}")
                    checked += 1
                except kubernetes_validate.ValidationError as error:
                    wrong += 1
                    path = ".".join(str(part) for part in error.path)
                    name = f"{document['kind']} {document['metadata']['name']}"
                    print(f"{file}: {name}: Kubernetes {version}: {path}: {error.message}")
    print(f"{checked} objects are valid, {wrong} are not")
    return 1 if wrong or not checked else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
