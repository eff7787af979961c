"""Which counters of a port are published, under the names the kernel and its drivers give them.

Standard RDMA counters come from the InfiniBand specification's PortCounters, hardware ones from the drivers (mlx5,
EFA, bnxt_re, irdma use the names here); those of a network card from its generic statistics. A list, so that a
driver with hundreds of counters does not become hundreds of series.
"""

from __future__ import annotations

_STANDARD = (
    "symbol_error",
    "link_error_recovery",
    "link_downed",
    "port_rcv_errors",
    "port_rcv_remote_physical_errors",
    "port_rcv_switch_relay_errors",
    "port_rcv_constraint_errors",
    "port_xmit_constraint_errors",
    "port_xmit_discards",
    "local_link_integrity_errors",
    "excessive_buffer_overrun_errors",
    "VL15_dropped",
)
_HARDWARE = (
    "duplicate_request",
    "implied_nak_seq_err",
    "local_ack_timeout_err",
    "out_of_buffer",
    "out_of_sequence",
    "packet_seq_err",
    "req_cqe_error",
    "req_cqe_flush_error",
    "req_remote_access_errors",
    "req_remote_invalid_request",
    "resp_cqe_error",
    "resp_cqe_flush_error",
    "resp_local_length_error",
    "resp_remote_access_errors",
    "rnr_nak_retry_err",
    "rx_drops",
    "rx_icrc_encapsulated",
    "rdma_read_wr_err",
    "rdma_write_wr_err",
    "retrans_timeout_events",
    "unresponsive_remote_events",
    "impaired_remote_conn_events",
)
RDMA_ERRORS = tuple(("counters", name) for name in _STANDARD) + tuple(("hw_counters", name) for name in _HARDWARE)

CONGESTION = (
    "np_cnp_sent",
    "np_ecn_marked_roce_packets",
    "rp_cnp_handled",
    "rp_cnp_ignored",
    "roce_adp_retrans",
    "roce_adp_retrans_to",
    "roce_slow_restart",
    "roce_slow_restart_cnps",
    "roce_slow_restart_trans",
)

CARD_ERRORS = (
    "rx_errors",
    "tx_errors",
    "rx_dropped",
    "tx_dropped",
    "rx_missed_errors",
    "rx_crc_errors",
    "rx_fifo_errors",
    "tx_fifo_errors",
    "tx_carrier_errors",
)
