"""Configurations of FirecREST v2 as centres write them, one for each form that its versions have had."""

from __future__ import annotations

# 2.5: everything below each cluster, the store too.
NEWEST = """
apis_root_path: "/firecrest/v2"
doc_servers: [{url: "https://api.centre.example.org/firecrest/v2", description: "Production"}]
auth:
  authentication:
    scopes: {}
    token_url: "https://sso.centre.example.org/realms/hpc/protocol/openid-connect/token"
    public_certs: ["https://sso.centre.example.org/realms/hpc/protocol/openid-connect/certs"]
    username_claim: "username"
    jwk_algorithm: "RS512"
    min_token_ttl: 60
ssh_credentials:
  type: "SSHStaticKeys"
  keys:
    alice: {private_key: "secret_file:/app/secrets/alice_key", public_cert: "secret_file:/app/secrets/alice_key-cert.pub"}
    bob: {private_key: "secret_file:/app/secrets/bob_key", public_cert: "secret_file:/app/secrets/bob_key-cert.pub"}
clusters:
- name: "Eiger"
  ssh:
    host: "login.eiger.example.org"
    port: 2222
    proxy_host: "gate.example.org"
    proxy_port: 22
    max_clients: 500
    timeout: {connection: 6, login: 7, command_execution: 30, idle_timeout: 60, keep_alive: 4}
  scheduler:
    type: "slurm"
    connection_mode: "ssh"
    version: "24.05.4"
    timeout: 10
  service_account: {client_id: "health", secret: "very-secret-1"}
  probing:
    interval_check: 300
    startup_grace_period: 300
    services: {ssh: {timeout: 10}, scheduler: {timeout: 20}, filesystem: {timeout: 15}}
  file_systems:
  - {path: "/home", data_type: "users", default_work_dir: false}
  - {path: "/scratch", data_type: "scratch", default_work_dir: true}
  data_operation: &operation
    max_ops_file_size: 10485760
    datatransfer_jobs_directives: ["#SBATCH --partition=xfer", "#SBATCH --time=0-12:00:00", "#SBATCH -A {account}"]
    data_transfer:
      service_type: "s3"
      name: "ceph"
      private_url: "https://rgw.internal.example.org"
      public_url: "https://rgw.example.org/"
      access_key_id: "very-secret-2"
      secret_access_key: "secret_file:/app/secrets/s3_secret"
      region: "zrh"
      ttl: 604800
      tenant: "hpc"
      multipart: {use_split: false, max_part_size: 1073741824, parallel_runs: 3, tmp_folder: "tmp"}
      bucket_lifecycle_configuration: {days: 5}
      bucket_name_prefix: "f7t-"
- name: "daint"
  ssh: {host: "login.daint.example.org", port: 22}
  scheduler: {type: "slurm", connection_mode: "rest", version: "24.11.0", api_url: "https://slurm.example.org:6820",
              api_version: "0.0.42", timeout: 12}
  service_account: {client_id: "health", secret: "secret_file:/app/secrets/health"}
  probing: {interval_check: 60}
  file_systems: [{path: "/home", data_type: "users", default_work_dir: true}]
  data_operation: *operation
logger: {enable_tracing_log: true, loggable_request_headers: [{input: "user-agent", output: "user_agent"}]}
"""

# 2.1 and before: one storage for all, credentials without a type, one timeout of the probes.
OLDEST = """
auth:
  authentication:
    tokenUrl: "http://keycloak:8080/auth/realms/kcrealm/protocol/openid-connect/token"
    publicCerts: ["http://keycloak:8080/auth/realms/kcrealm/protocol/openid-connect/certs"]
  authorization: {url: "http://openfga:8080", timeout: 1, max_connections: 100}
ssh_credentials: {url: "http://ssh-service:5000", max_connections: 500}
clusters:
- name: "cluster-slurm-ssh"
  ssh: {host: "192.168.240.2", port: 22, maxClients: 250, timeout: {commandExecution: 5, keepAlive: 5}}
  scheduler: {type: slurm, version: "24.11.0"}
  serviceAccount: {clientId: "health", secret: "very-secret-1"}
  probing: {interval: 120, timeout: 10}
  datatransferJobsDirectives: ["#SBATCH --nodes=1", "#SBATCH --time=0-00:15:00"]
  fileSystems: [{path: "/home", dataType: users, defaultWorkDir: true}]
storage:
  name: "s3-storage"
  private_url: "http://192.168.240.19:9000"
  public_url: "http://localhost:9000"
  access_key_id: "very-secret-2"
  secret_access_key: "very-secret-3"
  region: "us-east-1"
  ttl: 31536000
  multipart: {max_part_size: 1048576}
  max_ops_file_size: 1048576
  probing: {interval: 60, timeout: 10}
"""

# The values of the Helm chart, with one data_operation for all clusters, keys in the file, and two identity providers.
HELM = """
global: {environment: "production"}
image: "ghcr.io/eth-cscs/firecrest-v2"
replicas: 2
firecrest:
  apis_root_path: ""
  auth:
    authentication:
      scopes: {openid: "to log in"}
      token_url: "https://sso.example.org/auth/realms/one/protocol/openid-connect/token"
      public_certs:
      - "https://sso.example.org/auth/realms/one/protocol/openid-connect/certs"
      - "https://idp.partner.example.org/keys"
      username_claim: "preferred_username"
  ssh_credentials:
    type: "SSHStaticKeys"
    keys:
      fireuser:
        private_key: |
          very-secret-4
      firesrv: {private_key: "secret_file:/app/secrets/elsewhere", passphrase: "very-secret-5"}
  clusters:
  - name: "alps"
    ssh: {host: "login.alps.example.org", port: 22}
    scheduler: {type: "slurm", version: "24.05.4"}
    service_account: {client_id: "health", secret: ""}
    probing: {}
    file_systems: [{path: "/users", data_type: "users"}, {path: "/store/{{project}}", data_type: "project"}]
  - name: "old"
    ssh: {host: "login.old.example.org", port: 22}
    scheduler: {type: "pbs", version: "23.06.06"}
    service_account: {client_id: "health", secret: "very-secret-6"}
    probing: {interval_check: 120}
    file_systems: [{path: "/home", data_type: "users", default_work_dir: true}]
  data_operation:
    max_ops_file_size: 5242880
    datatransfer_jobs_directives: ["#SBATCH --ntasks=1"]
    data_transfer:
      service_type: "s3"
      name: "s3-storage"
      private_url: "https://s3.eu-central-1.amazonaws.com"
      public_url: "https://s3.eu-central-1.amazonaws.com"
      access_key_id: "very-secret-2"
      secret_access_key: "very-secret-3"
      region: "eu-central-1"
      ttl: 86400
"""

# No store at all, a certificate authority, and a file system that nobody named.
POINT_TO_POINT = """
auth: {authentication: {tokenUrl: "https://sso.example.org/token", publicCerts: []}}
ssh_credentials: {type: "SSHCA", url: "https://sshca.example.org/ca", max_connections: 50}
clusters:
- name: "lumi.one"
  ssh: {host: "login.lumi.example.org", port: 22}
  scheduler: {type: "slurm", version: "23.02"}
  service_account: {client_id: "health", secret: "very-secret-1"}
  probing: {}
  data_operation:
    data_transfer: {service_type: "streamer", host: "0.0.0.0", port_range: [5665, 5666], public_ips: ["192.0.2.7"],
                    wait_timeout: 43200, inbound_transfer_limit: 5368709120, pypi_index_url: "https://pypi.example.org"}
- name: "leonardo"
  ssh: {host: "login.leonardo.example.org", port: 22}
  scheduler: {type: "slurm", version: "23.02"}
  service_account: {client_id: "health", secret: "very-secret-1"}
  probing: {}
  file_systems: [{path: "/leonardo/home", data_type: "users", default_work_dir: true}]
  data_operation: {data_transfer: {service_type: "wormhole"}}
"""

ALL = {"newest": NEWEST, "oldest": OLDEST, "helm": HELM, "point to point": POINT_TO_POINT}
