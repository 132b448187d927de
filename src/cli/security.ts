// The options that say how a tunnel is secured; what they choose between, src/library/identity.ts knows.

import { type Command, Option } from "commander";

export const KEYS_DIR_HELP =
  "where keys of paired hosts are kept (default: /var/lib/deltavee/keys as root, else deltavee/keys in " +
  "$XDG_STATE_HOME or ~/.local/state)";

export const ALLOW_HELP =
  "who may hand over which VM, as PEER or PEER=VM, may be given more than once: PEER is a name in the certificate, " +
  "sha256:FINGERPRINT, or '*'; VM a name or UUID (default: any VM of whoever is trusted)";

export function withSecurityOptions(command: Command): Command {
  return command
    .option(
      "--tls-dir <folder>",
      "certificates for TLS as QEMU lays them out: ca-cert.pem, and server- or client-cert.pem and -key.pem",
    )
    .option("--keys-dir <folder>", KEYS_DIR_HELP)
    .addOption(
      new Option(
        "--insecure-plaintext",
        "send the guest's memory readable and changeable for everybody on the way; both sides must be told",
      ).conflicts(["tlsDir", "keysDir"]),
    );
}
