/** The views by the names that `router.ts` has for the menu. To add one: a row in each of the two, a file in `views`, a text `view.NAME`. */
import type { Component } from 'vue'
import type { View } from './router'
import Peers from './views/Peers.vue'
import Rules from './views/Rules.vue'
import Search from './views/Search.vue'
import Settings from './views/Settings.vue'
import Transfer from './views/Transfer.vue'
import Transfers from './views/Transfers.vue'

/** `item` is shown where the address names one of them behind the view, and gets its name as `id`. */
interface Shown {
  component: Component
  props?: Record<string, unknown>
  item?: Component
}

export const SHOWN: Record<View, Shown> = {
  transfers: { component: Transfers, item: Transfer },
  send: { component: Search, props: { fetch: false } },
  fetch: { component: Search, props: { fetch: true } },
  peers: { component: Peers },
  rules: { component: Rules },
  settings: { component: Settings },
}
