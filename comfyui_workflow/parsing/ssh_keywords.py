"""Keywords of -o, and which of them this server does not use. Pure.

is_keyword(word) -> bool                 True if ssh has a keyword of this name
refusal_reason(keyword) -> str | None    the reason, if the keyword could do harm or does not exist
ignored_notice(keyword) -> str | None    sentence for the user, if the keyword is ignored
is_off(value) -> bool                    True if the value turns a keyword off
"""

_USED = ("host", "hostname", "port", "user", "identityfile", "identitiesonly", "localforward", "proxyjump")
_NO_COMMANDS = "this server runs no commands"
_NO_LIBRARIES = "libraries are not loaded"
_NO_OTHER_FILE = "only the SSH configuration file of the settings is read"
_REFUSED = {
    "proxycommand": f"{_NO_COMMANDS}; name a jump host with -J",
    "localcommand": _NO_COMMANDS,
    "permitlocalcommand": _NO_COMMANDS,
    "knownhostscommand": _NO_COMMANDS,
    "remotecommand": "commands to run on the instance are not accepted",
    "xauthlocation": _NO_COMMANDS,
    "pkcs11provider": _NO_LIBRARIES,
    "securitykeyprovider": _NO_LIBRARIES,
    "smartcarddevice": _NO_LIBRARIES,
    "include": _NO_OTHER_FILE,
    "host": _NO_OTHER_FILE,
    "match": _NO_OTHER_FILE,
    "identityagent": "the server uses its own SSH agent",
    "dynamicforward": "dynamic forwarding is not accepted",
    "remoteforward": "remote forwarding is not accepted",
    "tunnel": "tunnel devices are not accepted",
    "tunneldevice": "tunnel devices are not accepted",
}
_HOST_KEYS = "the host key is always checked"
_KNOWN_HOSTS = "this server keeps its own file of known host keys"
_TIMES = "this server has its own timeouts"
_ALGORITHMS = "this server chooses the algorithms"
_LOGIN = "this server logs in with keys only"
_LOCAL_ADDRESS = "the system chooses the local address"
_NOTHING = "it changes nothing here"
_REASONS = {
    _HOST_KEYS: "StrictHostKeyChecking VerifyHostKeyDNS NoHostAuthenticationForLocalhost",
    _KNOWN_HOSTS: "UserKnownHostsFile GlobalKnownHostsFile HostKeyAlias HashKnownHosts CheckHostIP "
    "UpdateHostKeys RevokedHostKeys VisualHostKey FingerprintHash",
    _TIMES: "ServerAliveInterval ServerAliveCountMax ConnectTimeout ConnectionAttempts TCPKeepAlive "
    "ChannelTimeout RekeyLimit",
    _ALGORITHMS: "Ciphers Cipher MACs KexAlgorithms HostKeyAlgorithms PubkeyAcceptedAlgorithms "
    "PubkeyAcceptedKeyTypes HostbasedAcceptedAlgorithms HostbasedKeyTypes CASignatureAlgorithms "
    "RequiredRSASize Protocol WarnWeakCrypto",
    _LOGIN: "PasswordAuthentication KbdInteractiveAuthentication KbdInteractiveDevices "
    "ChallengeResponseAuthentication PreferredAuthentications PubkeyAuthentication RSAAuthentication "
    "HostbasedAuthentication GSSAPIAuthentication GSSAPIDelegateCredentials GSSAPIKeyExchange "
    "NumberOfPasswordPrompts BatchMode EnableSSHKeysign",
    _LOCAL_ADDRESS: "BindAddress BindInterface",
    "the address family is chosen by the host name": "AddressFamily",
    "the SSH agent is never forwarded": "ForwardAgent",
    "X11 is not forwarded": "ForwardX11 ForwardX11Trusted ForwardX11Timeout",
    "pictures do not get smaller by compression": "Compression CompressionLevel",
    "the tunnel listens on 127.0.0.1 only": "GatewayPorts",
    "a certificate is read from the file beside its key": "CertificateFile",
    "every connection is shared": "ControlMaster ControlPath ControlPersist",
    _NOTHING: "AddKeysToAgent UseKeychain CanonicalDomains CanonicalizeFallbackLocal CanonicalizeHostname "
    "CanonicalizeMaxDots CanonicalizePermittedCNAMEs ClearAllForwardings EnableEscapeCommandline EscapeChar "
    "ExitOnForwardFailure ForkAfterAuthentication IgnoreUnknown IPQoS LogLevel LogVerbose "
    "ObscureKeystrokeTiming PermitRemoteOpen ProxyUseFdpass RefuseConnection RequestTTY SendEnv SessionType "
    "SetEnv StdinNull StreamLocalBindMask StreamLocalBindUnlink SyslogFacility Tag UsePrivilegedPort "
    "VersionAddendum",
}
_IGNORED = {name.lower(): (name, reason) for reason, names in _REASONS.items() for name in names.split()}


def is_keyword(word: str) -> bool:
    known = word.lower()
    return known in _USED or known in _REFUSED or known in _IGNORED


def refusal_reason(keyword: str) -> str | None:
    """A keyword that ssh does not have is refused too: it is a typing error."""
    known = keyword.lower()
    return _REFUSED.get(known) or (None if known in _IGNORED else "ssh has no option of this name")


def ignored_notice(keyword: str) -> str | None:
    name, reason = _IGNORED.get(keyword.lower(), (None, None))
    return f"{name} is ignored: {reason}." if name else None


def is_off(value: str) -> bool:
    return value.lower() in ("no", "none", "false")
