import { findCaddy, startCaddy } from '../support/caddy.ts'
import { holdsCors } from '../support/edge-cors.ts'
import { findHaproxy, startHaproxy } from '../support/haproxy.ts'
import { findNginx, startDemo } from '../support/nginx.ts'

holdsCors('nginx', findNginx, startDemo)
holdsCors('Caddy', findCaddy, addresses => startCaddy(addresses))
holdsCors('HAProxy', findHaproxy, addresses => startHaproxy(addresses))
