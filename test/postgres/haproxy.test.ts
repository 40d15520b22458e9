import { holdsTheEdge } from '../support/edge.ts'
import { findHaproxy, startHaproxy } from '../support/haproxy.ts'

holdsTheEdge('HAProxy', findHaproxy, startHaproxy)
